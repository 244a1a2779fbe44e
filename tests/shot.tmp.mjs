import { openBrowser } from './harness/browser.js';
import { startDev } from './harness/postern.js';
import { signIn, chooseAcme, continueToAcme, answerAcme, connectAcme } from './harness/journeys.js';
const dev = await startDev();
const browser = await openBrowser();
console.log(Object.keys(dev), Object.getOwnPropertyNames(Object.getPrototypeOf(browser)));
